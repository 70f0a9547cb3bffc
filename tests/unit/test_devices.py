# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU devices of a topology, on the command line and in QMP."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from blockyard.images.hardware import devices, topologies
from blockyard.images.hardware.topology import (
    DEFAULT,
    Controller,
    Disk,
    Fdp,
    InjectedError,
    Namespace,
    Subsystem,
    Topology,
    Zoned,
)
from blockyard.images.machine import qemu_features
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import UsageError

PLAIN = Controller("x", (Namespace(64),))


def of(option: str, value: Topology) -> list[dict[str, Any]]:
    """The values of an option, in their order."""
    return [options for name, options in devices.items(value) if name == option]


def device_of(driver: str, value: Topology) -> dict[str, Any]:
    """The topology's only device of a QEMU driver."""
    (device,) = [options for options in of("device", value) if options["driver"] == driver]
    return device


def namespace(**fields: Any) -> Topology:
    """A topology with one namespace."""
    return Topology(controllers=(Controller("x", (Namespace(**fields),)),))


class TestArguments:
    def test_default_has_one_controller_with_one_namespace(self) -> None:
        arguments = list(devices.arguments(DEFAULT))
        assert arguments[::2] == ["-device", "-blockdev", "-device"]
        assert [json.loads(word) for word in arguments[1::2]] == [
            {"driver": "nvme", "id": "nvme0", "serial": "blockyard0"},
            {
                "driver": "file",
                "node-name": "nvme0n1",
                "filename": "/mnt/run/nvme0n1.raw",
                "cache": {"no-flush": True},
                "discard": "unmap",
            },
            {
                "driver": "nvme-ns",
                "bus": "nvme0",
                "drive": "nvme0n1",
                "nsid": 1,
                "logical_block_size": 512,
                "physical_block_size": 512,
            },
        ]

    @pytest.mark.parametrize("name", topologies.names())
    def test_every_value_is_json(self, name: str) -> None:
        arguments = [word for word in devices.arguments(topologies.load(name)) if word[0] == "{"]
        assert all(json.loads(word) for word in arguments)

    @pytest.mark.parametrize("name", topologies.names())
    def test_names_are_unique_and_references_exist(self, name: str) -> None:
        loaded = topologies.load(name)
        nodes = [options["node-name"] for options in of("blockdev", loaded)]
        made = of("object", loaded) + of("device", loaded)
        ids = [options["id"] for options in made if "id" in options]
        assert len({*nodes, *ids}) == len(nodes) + len(ids)
        assert all(len(node) <= 31 for node in nodes)
        devices_with = of("device", loaded)
        assert {options["drive"] for options in devices_with if "drive" in options} == {*nodes}
        # virtio-scsi-pci calls its bus after itself
        buses = {options["bus"].removesuffix(".0") for options in devices_with if "bus" in options}
        assert buses <= {*ids}

    def test_topology_without_controllers(self) -> None:
        assert list(devices.arguments(Topology(controllers=()))) == []


class TestNamespaces:
    def test_metadata_and_protection(self) -> None:
        device = device_of("nvme-ns", namespace(ms=16, mset=True, pi=1, pil=True, pif=2))
        assert {name: device[name] for name in ("ms", "mset", "pi", "pil", "pif")} == {
            "ms": 16,
            "mset": 1,
            "pi": 1,
            "pil": 1,
            "pif": 2,
        }

    def test_zone_sizes_are_in_bytes(self) -> None:
        zoned = Zoned(1024, 768, max_open=2, max_active=3, cross_read=True, descr_ext_size=64)
        device = device_of("nvme-ns", namespace(zoned=zoned))
        zone_options = {name: value for name, value in device.items() if name.startswith("zoned")}
        assert zone_options == {
            "zoned": True,
            "zoned.zone_size": 1 << 20,
            "zoned.zone_capacity": 768 << 10,
            "zoned.max_open": 2,
            "zoned.max_active": 3,
            "zoned.cross_read": True,
            "zoned.descr_ext_size": 64,
        }

    def test_block_size(self) -> None:
        device = device_of("nvme-ns", namespace(block_size=4096))
        assert device["logical_block_size"] == device["physical_block_size"] == 4096


class TestControllers:
    def test_only_values_other_than_the_default_are_passed(self) -> None:
        controller = Controller("x", max_ioqpairs=4, mdts=5, cmb_size_mib=16)
        assert device_of("nvme", Topology(controllers=(controller,))) == {
            "driver": "nvme",
            "id": "nvme0",
            "serial": "x",
            "max_ioqpairs": 4,
            "mdts": 5,
            "cmb_size_mb": 16,
        }

    def test_persistent_memory_region_is_an_object_before_the_device(self) -> None:
        value = Topology(controllers=(Controller("x", (), pmr_size_mib=16),))
        options = [option for option, _ in devices.items(value)]
        assert options == ["object", "device"]
        (region,) = of("object", value)
        assert region["size"] == 16 << 20
        assert device_of("nvme", value)["pmrdev"] == region["id"]

    def test_controller_with_virtual_functions_has_its_own_port(self) -> None:
        loaded = topologies.load("sriov")
        port = device_of("pcie-root-port", loaded)
        assert device_of("nvme", loaded)["bus"] == port["id"]
        assert port["hotplug"] is False


class TestSubsystems:
    def test_private_namespaces_are_not_shared(self) -> None:
        loaded = topologies.load("shared")
        spaces = [options for options in of("device", loaded) if options["driver"] == "nvme-ns"]
        assert [(space["bus"], space["nsid"], space.get("shared", True)) for space in spaces] == [
            ("nvme0", 1, True),
            ("nvme0", 2, False),
            ("nvme1", 3, False),
        ]

    def test_controllers_name_their_subsystem(self) -> None:
        loaded = topologies.load("shared")
        controllers = [options for options in of("device", loaded) if options["driver"] == "nvme"]
        subsystem = device_of("nvme-subsys", loaded)
        assert {controller["subsys"] for controller in controllers} == {subsystem["id"]}
        assert subsystem["nqn"] == "pair"

    def test_placement(self) -> None:
        value = Topology(
            subsystems=(Subsystem("s", fdp=Fdp(nruh=8, nrg=2, runs_mib=4)),),
            controllers=(Controller("x", (Namespace(ruhs=(0, 5)),), subsystem="s"),),
        )
        subsystem = device_of("nvme-subsys", value)
        assert subsystem["fdp"] is True
        assert (subsystem["fdp.nruh"], subsystem["fdp.nrg"]) == (8, 2)
        assert subsystem["fdp.runs"] == 4 << 20
        assert device_of("nvme-ns", value)["fdp.ruhs"] == "0;5"


class TestData:
    def test_backing_files_have_a_size(self) -> None:
        assert devices.backing_files(topologies.load("shared")) == {
            "pair-n1.raw": 256 << 20,
            "nvme0n2.raw": 128 << 20,
            "nvme1n3.raw": 64 << 20,
        }

    def test_null_and_memory_have_no_backing_file(self) -> None:
        assert devices.backing_files(topologies.load("null")) == {}
        assert devices.backing_files(topologies.load("memory")) == {}

    def test_null_backing_reads_zeroes(self) -> None:
        (data,) = of("blockdev", namespace(size_mib=64, backing="null"))
        assert data == {
            "driver": "null-co",
            "node-name": "nvme0n1",
            "size": 64 << 20,
            "read-zeroes": True,
        }

    def test_memory_backing_is_passed_as_file_descriptors(self) -> None:
        spaces = (Namespace(1, backing="memory"), Namespace(2), Namespace(3, backing="memory"))
        value = Topology(controllers=(Controller("x", spaces),))
        sizes = devices.memory_files(value)
        assert sizes == {"nvme0n1.raw": 1 << 20, "nvme0n3.raw": 3 << 20}
        assert [data["filename"] for data in of("blockdev", value)] == [
            "/dev/fdset/0",
            "/mnt/run/nvme0n2.raw",
            "/dev/fdset/1",
        ]
        arguments = list(devices.inherited(value, {"nvme0n1.raw": 20, "nvme0n3.raw": 10}))
        assert arguments == ["-add-fd", "fd=20,set=0", "-add-fd", "fd=10,set=1"]

    def test_injected_errors_cover_whole_blocks(self) -> None:
        errors = (InjectedError("read", 4, 2), InjectedError("write", 8, once=True))
        (data,) = of("blockdev", namespace(block_size=4096, errors=errors))
        assert data["driver"] == "blkdebug"
        assert data["image"]["filename"] == "/mnt/run/nvme0n1.raw"
        assert data["inject-error"] == [
            {"event": "none", "iotype": "read", "sector": 32},
            {"event": "none", "iotype": "read", "sector": 40},
            {"event": "none", "iotype": "write", "sector": 64, "once": True},
        ]

    def test_other_disks(self) -> None:
        disks = (Disk("virtio-blk", "a", 64), Disk("virtio-scsi", "b", block_size=4096))
        value = Topology(controllers=(), disks=disks)
        assert device_of("virtio-blk-pci", value)["serial"] == "a"
        assert device_of("scsi-hd", value)["logical_block_size"] == 4096
        assert devices.backing_files(value) == {"disk0.raw": 64 << 20, "disk1.raw": 512 << 20}


class TestHotplug:
    def test_hotplug_commands(self) -> None:
        (add, data), (plug, device) = devices.hotplug(PLAIN, 2)
        assert (add, plug) == ("blockdev-add", "device_add")
        assert data["filename"] == "/mnt/run/port2-nvme.raw"
        assert device == {
            "driver": "nvme",
            "id": "port2-nvme",
            "serial": "x",
            "bus": "port2",
            "drive": data["node-name"],
            "logical_block_size": 512,
            "physical_block_size": 512,
        }
        assert devices.hotplug_files(PLAIN, 2) == {"port2-nvme.raw": 64 << 20}

    def test_unplug_removes_all_that_hotplug_added(self) -> None:
        controller = msgspec.structs.replace(PLAIN, pmr_size_mib=16)
        assert [command for command, _ in devices.hotplug(controller, 0)] == [
            "blockdev-add",
            "object-add",
            "device_add",
        ]
        assert devices.unplug(controller, 0) == [
            ("device_del", {"id": "port0-nvme"}),
            ("blockdev-del", {"node-name": "port0-nvme"}),
            ("object-del", {"id": "port0-nvme-pmr"}),
        ]

    def test_topology_has_the_hotplug_ports(self) -> None:
        value = Topology(hotplug_ports=2)
        ports = [options["id"] for options in of("device", value) if "chassis" in options]
        assert ports == [devices.port_name(0), devices.port_name(1)]
        assert list(devices.arguments(value))[:2] == list(devices.NATIVE_HOTPLUG)

    def test_plugged_controller_joins_its_subsystem(self) -> None:
        controller = Controller("x", (), subsystem="s")
        ((command, device),) = devices.hotplug(controller, 0)
        assert command == "device_add"
        assert device["subsys"] == "subsystem-s"

    @pytest.mark.parametrize(
        "controller",
        [
            Controller("x", (Namespace(), Namespace())),
            Controller("x", (Namespace(),), subsystem="s"),
            Controller("x", (Namespace(ms=8),)),
            Controller("x", (Namespace(zoned=Zoned(1024)),)),
            Controller("x", (Namespace(backing="memory"),)),
        ],
    )
    def test_unsupported_hotplug_is_a_usage_error(self, controller: Controller) -> None:
        with pytest.raises(UsageError, match="controller x cannot be plugged into a running guest"):
            devices.hotplug(controller, 0)


class TestQemuFeatures:
    def test_qemu_is_not_run_for_common_features(self, tmp_path: Any) -> None:
        assert qemu_features.missing_feature(DEFAULT, ToolRoot(tmp_path / "missing")) == ""
        for name in ("4k", "controllers", "namespaces", "null", "memory", "errors"):
            assert (
                qemu_features.missing_feature(topologies.load(name), ToolRoot(tmp_path / "missing"))
                == ""
            )

    def test_options_are_parsed_from_the_help_of_a_device(self) -> None:
        lines = [
            "nvme options:",
            "  atomic.dn=<bool>       - on/off (default: off)",
            "  serial=<str>",
            "  x-pcie-err-unc-mask=<bool> - on/off (default: on)",
        ]
        assert qemu_features.parse(lines) == {"atomic.dn", "serial", "x-pcie-err-unc-mask"}
        assert qemu_features.parse([]) == frozenset()

    def test_missing_feature_is_named(self) -> None:
        required = qemu_features.needed(topologies.load("queues"))
        available = {"nvme": frozenset({"serial", "max_ioqpairs", "msix_qsize", "mdts"})}
        assert qemu_features.first_missing(required, available, "QEMU 8.2") == (
            "the device nvme of QEMU 8.2 has no mqes"
        )
        assert (
            qemu_features.first_missing(required, {}, "QEMU 8.2") == "QEMU 8.2 has no device nvme"
        )
        assert qemu_features.first_missing(required, required, "QEMU 8.2") == ""

    @pytest.mark.parametrize("name", topologies.names())
    def test_required_features_are_of_known_drivers(self, name: str) -> None:
        assert qemu_features.needed(topologies.load(name)).keys() <= set(qemu_features.DRIVERS)
