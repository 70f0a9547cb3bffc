# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading and unloading a driver."""

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import needs, smoke

CYCLES = 5


@needs("module")
@smoke
def test_load_unload_cycles(driver: Driver) -> None:
    """The module can be unloaded and loaded repeatedly."""
    for _ in range(CYCLES):
        driver.unload()
        assert not driver.loaded(), f"{driver.name} is still loaded after modprobe --remove"
        driver.load()
        assert driver.loaded(), f"{driver.name} is not loaded after modprobe"


@needs("module", "configfs")
@smoke
def test_unloading_removes_the_configfs_directory(driver: Driver) -> None:
    driver.unload()
    gone = driver.console.run(f"test ! -e {driver.configfs}").exit_code == 0
    driver.load()
    back = driver.console.run(f"test -d {driver.configfs}").exit_code == 0
    assert gone, f"{driver.configfs} still exists after its module was unloaded"
    assert back, f"{driver.configfs} did not come back with its module"


@needs("module", "configfs")
@smoke
def test_module_in_use_cannot_be_unloaded(driver: Driver, disk: Disk) -> None:
    modules = " ".join(driver.manifest.modules)
    result = driver.console.run(f"rmmod {modules}")
    assert result.exit_code != 0, "rmmod unloaded a module with a configured disk"
    assert "in use" in result.output
    assert disk.exists()


@needs("module", "holds_module_ref")
def test_an_open_disk_pins_its_module(driver: Driver, disk: Disk) -> None:
    result = driver.console.run(
        f"exec 3< {disk.path}; rmmod {' '.join(reversed(driver.manifest.modules))}"
    )
    assert result.exit_code != 0, "rmmod unloaded a module whose disk is open"
    assert "in use" in result.output
    assert disk.exists()
    driver.unload()
    gone = not disk.exists()
    driver.load()
    assert gone, f"{disk.path} still exists after its module was unloaded"


@needs("module", "parameters")
@pytest.mark.parametrize("value", ["0", "-1", "abc"])
def test_invalid_size_is_einval(driver: Driver, value: str) -> None:
    """The module is not loaded, and the kernel log says why."""
    module = driver.manifest.modules[-1]
    driver.unload()
    result = driver.console.run(
        f"dmesg --clear; modprobe {module} size_mib={value}; code=$?; dmesg --notime; exit $code"
    )
    loaded = driver.loaded()
    if loaded:
        driver.unload()
    driver.load()
    assert not loaded, f"{module} was loaded with size_mib={value}"
    assert "Invalid argument" in result.output
    assert "size_mib" in result.output, "the kernel log does not name the parameter"


@needs("module", "parameters")
@pytest.mark.parametrize("size_mib", [1, 300])
def test_parameter_sets_the_size(driver: Driver, size_mib: int) -> None:
    module = driver.manifest.modules[-1]
    driver.unload()
    driver.console.check(f"modprobe {module} size_mib={size_mib}")
    driver.wait_for_disks()
    sizes = [disk.size_bytes for disk in driver.disks()]
    driver.unload()
    driver.load()
    assert sizes == [size_mib << 20]


@smoke
def test_disk_has_a_number_a_size_and_a_queue_in_sysfs(driver: Driver, disk: Disk) -> None:
    """The disk also has a node in /dev."""
    driver.console.check(
        f"cd {disk.sysfs} && grep -Eq '^[0-9]+:[0-9]+$' dev && test -d queue && test -r size"
    )
    driver.console.check(f"test -b {disk.path}")


@needs("module", "configfs")
def test_open_disk_pins_its_module_after_rmdir(driver: Driver) -> None:
    """Closing the disk calls into the module, so it must stay until then."""
    module = driver.manifest.modules[-1]
    disk = driver.create({})
    result = driver.console.run(
        f"""
        exec 3< {disk.path}
        rmdir {disk.directory}
        rmmod {module} && echo "{module} is gone"
        exec 3<&-
        sleep 0.2"""
    )
    assert "is gone" not in result.output, "rmmod unloaded a module whose disk is open"
    assert "in use" in result.output
