# SPDX-License-Identifier: GPL-2.0-or-later
"""From a topology to QEMU's devices, on the command line and in QMP."""

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
    """The dictionaries of one option, in their order."""
    return [options for name, options in devices.items(value) if name == option]


def one(driver: str, value: Topology) -> dict[str, Any]:
    """The only device of a driver."""
    (found,) = [options for options in of("device", value) if options["driver"] == driver]
    return found


def namespace(**fields: Any) -> Topology:
    """A topology of one namespace."""
    return Topology(controllers=(Controller("x", (Namespace(**fields),)),))


class TestArguments:
    def test_the_default_has_a_controller_with_a_namespace_and_nothing_else(self) -> None:
        words = list(devices.arguments(DEFAULT))
        assert words[::2] == ["-device", "-blockdev", "-device"]
        assert [json.loads(word) for word in words[1::2]] == [
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
        words = [word for word in devices.arguments(topologies.load(name)) if word[0] == "{"]
        assert all(json.loads(word) for word in words)

    @pytest.mark.parametrize("name", topologies.names())
    def test_what_is_named_is_there_and_named_once(self, name: str) -> None:
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

    def test_no_nvme(self) -> None:
        assert list(devices.arguments(Topology(controllers=()))) == []


class TestNamespaces:
    def test_metadata_and_protection(self) -> None:
        device = one("nvme-ns", namespace(ms=16, mset=True, pi=1, pil=True, pif=2))
        assert {name: device[name] for name in ("ms", "mset", "pi", "pil", "pif")} == {
            "ms": 16,
            "mset": 1,
            "pi": 1,
            "pil": 1,
            "pif": 2,
        }

    def test_zones_are_told_in_bytes(self) -> None:
        zoned = Zoned(1024, 768, max_open=2, max_active=3, cross_read=True, descr_ext_size=64)
        device = one("nvme-ns", namespace(zoned=zoned))
        told = {name: value for name, value in device.items() if name.startswith("zoned")}
        assert told == {
            "zoned": True,
            "zoned.zone_size": 1 << 20,
            "zoned.zone_capacity": 768 << 10,
            "zoned.max_open": 2,
            "zoned.max_active": 3,
            "zoned.cross_read": True,
            "zoned.descr_ext_size": 64,
        }

    def test_block_size(self) -> None:
        device = one("nvme-ns", namespace(block_size=4096))
        assert device["logical_block_size"] == device["physical_block_size"] == 4096


class TestControllers:
    def test_qemu_hears_only_what_is_not_its_default(self) -> None:
        controller = Controller("x", max_ioqpairs=4, mdts=5, cmb_size_mib=16)
        assert one("nvme", Topology(controllers=(controller,))) == {
            "driver": "nvme",
            "id": "nvme0",
            "serial": "x",
            "max_ioqpairs": 4,
            "mdts": 5,
            "cmb_size_mb": 16,
        }

    def test_a_persistent_memory_region_is_an_object_that_is_there_first(self) -> None:
        value = Topology(controllers=(Controller("x", (), pmr_size_mib=16),))
        options = [option for option, _ in devices.items(value)]
        assert options == ["object", "device"]
        (region,) = of("object", value)
        assert region["size"] == 16 << 20
        assert one("nvme", value)["pmrdev"] == region["id"]

    def test_one_with_virtual_functions_has_a_port_for_itself(self) -> None:
        loaded = topologies.load("sriov")
        port = one("pcie-root-port", loaded)
        assert one("nvme", loaded)["bus"] == port["id"]
        assert port["hotplug"] is False


class TestSubsystems:
    def test_what_is_private_says_so(self) -> None:
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
        subsystem = one("nvme-subsys", loaded)
        assert {controller["subsys"] for controller in controllers} == {subsystem["id"]}
        assert subsystem["nqn"] == "pair"

    def test_placement(self) -> None:
        value = Topology(
            subsystems=(Subsystem("s", fdp=Fdp(nruh=8, nrg=2, runs_mib=4)),),
            controllers=(Controller("x", (Namespace(ruhs=(0, 5)),), subsystem="s"),),
        )
        subsystem = one("nvme-subsys", value)
        assert subsystem["fdp"] is True
        assert (subsystem["fdp.nruh"], subsystem["fdp.nrg"]) == (8, 2)
        assert subsystem["fdp.runs"] == 4 << 20
        assert one("nvme-ns", value)["fdp.ruhs"] == "0;5"


class TestData:
    def test_each_file_has_a_size(self) -> None:
        assert devices.backing_files(topologies.load("shared")) == {
            "pair-n1.raw": 256 << 20,
            "nvme0n2.raw": 128 << 20,
            "nvme1n3.raw": 64 << 20,
        }

    def test_no_file_for_what_is_not_in_one(self) -> None:
        assert devices.backing_files(topologies.load("null")) == {}
        assert devices.backing_files(topologies.load("memory")) == {}

    def test_null_reads_zeroes(self) -> None:
        (data,) = of("blockdev", namespace(size_mib=64, backing="null"))
        assert data == {
            "driver": "null-co",
            "node-name": "nvme0n1",
            "size": 64 << 20,
            "read-zeroes": True,
        }

    def test_memory_comes_by_descriptors(self) -> None:
        spaces = (Namespace(1, backing="memory"), Namespace(2), Namespace(3, backing="memory"))
        value = Topology(controllers=(Controller("x", spaces),))
        sizes = devices.memory_files(value)
        assert sizes == {"nvme0n1.raw": 1 << 20, "nvme0n3.raw": 3 << 20}
        assert [data["filename"] for data in of("blockdev", value)] == [
            "/dev/fdset/0",
            "/mnt/run/nvme0n2.raw",
            "/dev/fdset/1",
        ]
        words = list(devices.inherited(value, {"nvme0n1.raw": 20, "nvme0n3.raw": 10}))
        assert words == ["-add-fd", "fd=20,set=0", "-add-fd", "fd=10,set=1"]

    def test_errors_are_of_whole_blocks(self) -> None:
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
        assert one("virtio-blk-pci", value)["serial"] == "a"
        assert one("scsi-hd", value)["logical_block_size"] == 4096
        assert devices.backing_files(value) == {"disk0.raw": 64 << 20, "disk1.raw": 512 << 20}


class TestHotplug:
    def test_the_commands(self) -> None:
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

    def test_what_was_added_is_taken_away(self) -> None:
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

    def test_the_ports_are_those_of_the_topology(self) -> None:
        value = Topology(hotplug_ports=2)
        ports = [options["id"] for options in of("device", value) if "chassis" in options]
        assert ports == [devices.port_name(0), devices.port_name(1)]
        assert list(devices.arguments(value))[:2] == list(devices.NATIVE_HOTPLUG)

    def test_one_of_a_subsystem_has_what_is_shared_there(self) -> None:
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
    def test_what_qemu_does_not_take(self, controller: Controller) -> None:
        with pytest.raises(UsageError, match="controller x cannot be plugged into a running guest"):
            devices.hotplug(controller, 0)


class TestAbilities:
    def test_qemu_is_not_asked_for_what_the_default_has(self, tmp_path: Any) -> None:
        assert qemu_features.missing_feature(DEFAULT, ToolRoot(tmp_path / "not there")) == ""
        for name in ("4k", "controllers", "namespaces", "null", "memory", "errors"):
            assert (
                qemu_features.missing_feature(
                    topologies.load(name), ToolRoot(tmp_path / "not there")
                )
                == ""
            )

    def test_names_are_taken_from_qemus_help(self) -> None:
        told = [
            "nvme options:",
            "  atomic.dn=<bool>       - on/off (default: off)",
            "  serial=<str>",
            "  x-pcie-err-unc-mask=<bool> - on/off (default: on)",
        ]
        assert qemu_features.parse(told) == {"atomic.dn", "serial", "x-pcie-err-unc-mask"}
        assert qemu_features.parse([]) == frozenset()

    def test_a_reason_names_what_is_missing(self) -> None:
        wanted = qemu_features.needed(topologies.load("queues"))
        there = {"nvme": frozenset({"serial", "max_ioqpairs", "msix_qsize", "mdts"})}
        assert qemu_features.first_missing(wanted, there, "QEMU 8.2") == (
            "the device nvme of QEMU 8.2 has no mqes"
        )
        assert qemu_features.first_missing(wanted, {}, "QEMU 8.2") == "QEMU 8.2 has no device nvme"
        assert qemu_features.first_missing(wanted, wanted, "QEMU 8.2") == ""

    @pytest.mark.parametrize("name", topologies.names())
    def test_all_that_a_topology_asks_for_can_be_asked_of_qemu(self, name: str) -> None:
        assert qemu_features.needed(topologies.load(name)).keys() <= set(qemu_features.DRIVERS)
