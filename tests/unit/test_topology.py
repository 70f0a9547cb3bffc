# SPDX-License-Identifier: GPL-2.0-or-later
"""Topology files: those in the repository, users' files, and errors for invalid ones."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from blockyard.images.hardware import bounds, topologies
from blockyard.images.hardware.topology import DEFAULT, Controller, Namespace, Subsystem, Topology
from blockyard.kernel.host.errors import UsageError

SHIPPED = (
    "4k",
    "cmb",
    "controllers",
    "default",
    "errors",
    "fdp",
    "hotplug",
    "memory",
    "metadata",
    "namespaces",
    "null",
    "pmr",
    "queues",
    "shared",
    "slots",
    "sriov",
    "virtio",
    "zns",
)
PAIR = Topology(
    controllers=(
        Controller("a", (Namespace(1), Namespace(2)), subsystem="pair"),
        Controller("b"),
        Controller("a", (Namespace(3),), subsystem="pair"),
    ),
    subsystems=(Subsystem("pair", (Namespace(4), Namespace(5))),),
)

CONTROLLER = """\
[[controllers]]
serial = "a"
"""
NAMESPACE = CONTROLLER + "[[controllers.namespaces]]\nsize_mib = 64\n"
IN_SUBSYSTEM = '[[subsystems]]\nname = "s"\n' + CONTROLLER + 'subsystem = "s"\n'
SRIOV = IN_SUBSYSTEM + "sriov_max_vfs = 2\nsriov_vq_flexible = 4\nsriov_vi_flexible = 2\n"
FDP = IN_SUBSYSTEM.replace('"s"\n', '"s"\nfdp = { nruh = 4 }\n', 1)
HANDLES = FDP + "[[controllers.namespaces]]\nruhs = [0, 1]\n"


def at_namespace(field: str) -> str:
    return f"`$.controllers[0].namespaces[0].{field}`"


def at_controller(field: str) -> str:
    return f"`$.controllers[0].{field}`"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Path of a user's topology file."""
    return tmp_path / "mine.toml"


class TestShipped:
    def test_names_of_all_topologies(self) -> None:
        assert topologies.names() == SHIPPED

    @pytest.mark.parametrize("name", SHIPPED)
    def test_topology_loads_and_has_a_description(self, name: str) -> None:
        loaded = topologies.load(name)
        assert loaded.name == name
        assert loaded.about

    @pytest.mark.parametrize("name", SHIPPED)
    def test_topology_round_trips_through_json(self, name: str) -> None:
        """A run passes its topology to workers as JSON."""
        loaded = topologies.load(name)
        assert msgspec.json.decode(msgspec.json.encode(loaded), type=Topology) == loaded

    def test_default_file_equals_the_built_in_default(self) -> None:
        assert topologies.load("default") == DEFAULT

    @pytest.mark.parametrize(
        ("wrong", "near"), [("defualt", "default"), ("namespace", "namespaces"), ("xyz", "known: ")]
    )
    def test_unknown_topology_suggests_the_nearest(self, wrong: str, near: str) -> None:
        with pytest.raises(UsageError, match=f"unknown topology '{wrong}'") as caught:
            topologies.load(wrong)
        assert near in caught.value.hint


class TestUsers:
    def test_path_is_read(self, file: Path) -> None:
        file.write_text(NAMESPACE)
        loaded = topologies.load(str(file))
        assert loaded.name == "mine"
        assert loaded.controllers == (Controller("a", (Namespace(64),)),)

    def test_path_can_be_relative(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file.write_text(CONTROLLER)
        monkeypatch.chdir(file.parent)
        assert topologies.load("mine.toml") == topologies.load("./mine.toml")

    def test_empty_file_is_the_default(self, file: Path) -> None:
        file.write_text("")
        assert topologies.load(str(file)).controllers == DEFAULT.controllers

    def test_missing_file_is_refused(self, file: Path) -> None:
        with pytest.raises(UsageError, match="cannot read the topology .*mine.toml: No such file"):
            topologies.load(str(file))

    def test_fifo_is_refused(self, file: Path) -> None:
        os.mkfifo(file)
        with pytest.raises(UsageError, match="mine.toml: it is not a regular file"):
            topologies.load(str(file))

    def test_depth_is_limited(self, file: Path) -> None:
        file.write_text("a = " + "[" * 5000)
        with pytest.raises(UsageError, match="nests more than 16 levels deep"):
            topologies.load(str(file))

    def test_byte_order_mark_is_ignored(self, file: Path) -> None:
        file.write_bytes(b"\xef\xbb\xbf" + NAMESPACE.encode())
        assert topologies.load(str(file)).controllers == (Controller("a", (Namespace(64),)),)

    def test_binary_file_is_refused(self, file: Path) -> None:
        file.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match="mine.toml"):
            topologies.load(str(file))


class TestInvalid:
    @pytest.mark.parametrize(
        ("text", "field", "words"),
        [
            ("[[controllers]", "", "line"),
            ("[[controllers]]", "`$.controllers[0]`", "serial"),
            ("cpus = 0", "`$.cpus`", ">= 1"),
            ("memory_mib = 1", "`$.memory_mib`", ">= 128"),
            ("hotplug_ports = 17", "`$.hotplug_ports`", "<= 16"),
            ("controler = []", "", "controler"),
            ('[[controllers]]\nserial = ""', at_controller("serial"), "regex"),
            (f'[[controllers]]\nserial = "{"x" * 21}"', at_controller("serial"), "regex"),
            (CONTROLLER + "mdts = 10", at_controller("mdts"), "<= 9"),
            (CONTROLLER + "max_ioqpairs = 0", at_controller("max_ioqpairs"), ">= 1"),
            (CONTROLLER + "msix_qsize = 2049", at_controller("msix_qsize"), "<= 2048"),
            (CONTROLLER + "cmb_size_mib = 3", at_controller("cmb_size_mib"), "power of two"),
            (CONTROLLER + "pmr_size_mib = 24", at_controller("pmr_size_mib"), "power of two"),
            (NAMESPACE + "blok_size = 512", "namespaces[0]`", "blok_size"),
            (NAMESPACE + 'backing = "tape"', at_namespace("backing"), "tape"),
            (NAMESPACE + "block_size = 0", at_namespace("block_size"), ">= 512"),
            (NAMESPACE + "block_size = 520", at_namespace("block_size"), "power of two"),
            (NAMESPACE + "block_size = 131072", at_namespace("block_size"), "<= 65536"),
            (NAMESPACE + "mset = true", at_namespace("mset"), "set ms"),
            (NAMESPACE + "pi = 1", at_namespace("pi"), "8 bytes of metadata"),
            (NAMESPACE + "pi = 4\nms = 8", at_namespace("pi"), "4"),
            (NAMESPACE + "pi = 1\nms = 8\npif = 2", at_namespace("pi"), "16 bytes of metadata"),
            (NAMESPACE + "pi = 1\nms = 8\npif = 1", at_namespace("pif"), "1"),
            (NAMESPACE + "ms = 8\npil = true", at_namespace("pil"), "protection"),
            (NAMESPACE + "ruhs = [0]", at_namespace("ruhs"), "subsystem with fdp"),
            (
                NAMESPACE + 'errors = [{ on = "read", lba = 131071, blocks = 2 }]',
                at_namespace("errors[0].lba"),
                "only 131072 blocks",
            ),
            (
                NAMESPACE + 'errors = [{ on = "erase", lba = 0 }]',
                at_namespace("errors[0].on"),
                "erase",
            ),
            ('[[disks]]\ninterface = "ide"\nserial = "a"', "`$.disks[0].interface`", "ide"),
            (
                '[[disks]]\ninterface = "virtio-blk"\nserial = "a"\nblock_size = 1000',
                "`$.disks[0].block_size`",
                "power of two",
            ),
        ],
    )
    def test_error_names_file_and_field(
        self, file: Path, text: str, field: str, words: str
    ) -> None:
        file.write_text(text)
        self.expect(file, field, words)

    @pytest.mark.parametrize(
        ("zoned", "field", "words"),
        [
            ("{}", "", "zone_size_kib"),
            ("{ zone_size_kib = 1022 }", ".zone_size_kib", "block size, 4096"),
            (
                "{ zone_size_kib = 1024, zone_capacity_kib = 1022 }",
                ".zone_capacity_kib",
                "block size, 4096",
            ),
            (
                "{ zone_size_kib = 1024, zone_capacity_kib = 2048 }",
                ".zone_capacity_kib",
                "more than the zone's size, 1024 KiB",
            ),
            ("{ zone_size_kib = 131072 }", ".zone_size_kib", "smaller than one zone"),
            ("{ zone_size_kib = 1024, max_open = 9, max_active = 8 }", ".max_open", "8"),
            ("{ zone_size_kib = 1024, descr_ext_size = 65 }", ".descr_ext_size", "64"),
        ],
    )
    def test_invalid_zones(self, file: Path, zoned: str, field: str, words: str) -> None:
        file.write_text(f"{NAMESPACE}block_size = 4096\nzoned = {zoned}")
        self.expect(file, at_namespace(f"zoned{field}"), words)

    @pytest.mark.parametrize(
        ("text", "field", "words"),
        [
            (CONTROLLER + 'subsystem = "t"', at_controller("subsystem"), "unknown subsystem 't'"),
            (
                IN_SUBSYSTEM + '[[subsystems]]\nname = "t"',
                "`$.subsystems[1]`",
                "no controller is in the subsystem 't'",
            ),
            (
                IN_SUBSYSTEM + '[[subsystems]]\nname = "s"',
                "`$.subsystems[1].name`",
                "duplicate subsystem name 's'",
            ),
            (
                IN_SUBSYSTEM + '[[controllers]]\nserial = "b"\nsubsystem = "s"',
                "`$.controllers[1].serial`",
                "same serial number",
            ),
            (
                IN_SUBSYSTEM.replace('"s"\n', '"s"\nnamespaces = [{ block_size = 1000 }]\n', 1),
                "`$.subsystems[0].namespaces[0].block_size`",
                "power of two",
            ),
        ],
    )
    def test_invalid_subsystem(self, file: Path, text: str, field: str, words: str) -> None:
        file.write_text(text)
        self.expect(file, field, words)

    @pytest.mark.parametrize(
        ("old", "new", "field", "words"),
        [
            ('subsystem = "s"\n', "", "sriov_max_vfs", "subsystem"),
            ("vq_flexible = 4", "vq_flexible = 3", "sriov_vq_flexible", "need 4 queues"),
            ("vi_flexible = 2", "vi_flexible = 1", "sriov_vi_flexible", "need 2 vectors"),
            ("max_vfs = 2", "max_vfs = 0", "sriov_vq_flexible", "needs virtual functions"),
            ("max_vfs = 2", "max_vfs = 128", "sriov_max_vfs", "<= 127"),
            ("vq_flexible = 4", "vq_flexible = 63", "max_ioqpairs", "sriov_vq_flexible + 2"),
            ("vi_flexible = 2", "vi_flexible = 65", "msix_qsize", "sriov_vi_flexible + 1"),
            ("sriov_max", "cmb_size_mib = 16\nsriov_max", "cmb_size_mib", "CMB or PMR"),
            ("sriov_max", "pmr_size_mib = 16\nsriov_max", "pmr_size_mib", "CMB or PMR"),
        ],
    )
    def test_invalid_sriov(self, file: Path, old: str, new: str, field: str, words: str) -> None:
        assert old in SRIOV
        text = SRIOV.replace(old, new)
        # a subsystem without a controller is another error
        file.write_text(text if "subsystem =" in text else text[text.index("[[controllers") :])
        self.expect(file, at_controller(field), words)

    @pytest.mark.parametrize(
        ("old", "new", "field", "words"),
        [
            ("nruh = 4", "", "`$.subsystems[0].fdp`", "nruh"),
            ("nruh = 4", "nruh = 129", "`$.subsystems[0].fdp.nruh`", "<= 128"),
            ("nruh = 4", "nruh = 128, nrg = 1024", "`$.subsystems[0].fdp.nrg`", "16-bit"),
            ("ruhs = [0, 1]", "", at_namespace("ruhs"), "needs reclaim unit handles"),
            ("[0, 1]", "[0, 4]", at_namespace("ruhs"), "last reclaim unit handle is 3"),
            ("[0, 1]", "[1, 1]", at_namespace("ruhs"), "duplicate"),
            ("[0, 1]", "[0]\nzoned = { zone_size_kib = 1024 }", at_namespace("zoned"), "zoned"),
            (
                "[0, 1]",
                "[0]\n[[controllers.namespaces]]\nblock_size = 4096\nruhs = [0]",
                "`$.controllers[0].namespaces[1].ruhs`",
                "another block format",
            ),
        ],
    )
    def test_invalid_fdp(self, file: Path, old: str, new: str, field: str, words: str) -> None:
        assert old in HANDLES
        file.write_text(HANDLES.replace(old, new))
        self.expect(file, field, words)

    @pytest.mark.parametrize(
        ("text", "field", "words"),
        [
            ("memory_mib = 99999999999999", "`$.memory_mib`", "this host has 16000 MiB"),
            (CONTROLLER + "cmb_size_mib = 4294967296", at_controller("cmb_size_mib"), "4294967295"),
            (CONTROLLER + f"cmb_size_mib = {1 << 50}", at_controller("cmb_size_mib"), "4294967295"),
            (
                CONTROLLER + f"pmr_size_mib = {1 << 20}",
                at_controller("pmr_size_mib"),
                "1048576 MiB",
            ),
            (
                CONTROLLER
                + f"pmr_size_mib = {1 << 13}\n[[controllers]]\nserial='b'\ncmb_size_mib=8192",
                at_controller("pmr_size_mib"),
                "17408 MiB with the other sizes",
            ),
            (
                CONTROLLER + "namespaces = [" + "{}, " * 257 + "]",
                at_controller("namespaces"),
                "257 namespaces, QEMU allows at most 256",
            ),
            ('[[controllers]]\nserial = "a"\n' * 27, "`$.controllers`", "26 free slots"),
            ('[[controllers]]\nserial = "a"\n' * 500, "`$.controllers`", "26 free slots"),
            ("hotplug_ports = 16\n" + CONTROLLER * 11, "`$.hotplug_ports`", "27 are needed"),
            (
                '[[disks]]\ninterface = "virtio-blk"\nserial = "a"\n' * 26,
                "`$.disks`",
                "27 are needed",
            ),
            ('[[disks]]\ninterface = "virtio-scsi"\nserial = "a"\n' * 257, "`$.disks`", "256"),
            (
                NAMESPACE.replace("64", "32768")
                + "block_size = 4096\nzoned = { zone_size_kib = 4 }",
                at_namespace("zoned.zone_size_kib"),
                "8388608 zones",
            ),
            (
                NAMESPACE + "zoned = { zone_size_kib = 1024, max_active = 4294967296 }",
                at_namespace("zoned.max_active"),
                "4294967295",
            ),
        ],
    )
    def test_limits_of_qemu_and_the_host(
        self, file: Path, text: str, field: str, words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bounds, "host_memory_mib", lambda: 16000)
        file.write_text(text)
        self.expect(file, field, words)

    @pytest.mark.parametrize(
        "text",
        [
            "memory_mib = 16000\ncontrollers = []",
            CONTROLLER + "namespaces = [" + "{}, " * 256 + "]",
            '[[controllers]]\nserial = "a"\n' * 26,
            "hotplug_ports = 16\n" + CONTROLLER * 10,
        ],
    )
    def test_maximum_is_accepted(
        self, file: Path, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bounds, "host_memory_mib", lambda: 16000)
        file.write_text(text)
        topologies.load(str(file))

    def test_number_of_virtual_functions_in_a_subsystem_is_limited(self, file: Path) -> None:
        controller = f"""
            [[controllers]]
            {SRIOV.partition("[[controllers]]")[2]}
            max_ioqpairs = 202
            msix_qsize = 101
            """
        for few, many in (
            ("max_vfs = 2", "max_vfs = 100"),
            ("vq_flexible = 4", "vq_flexible = 200"),
            ("vi_flexible = 2", "vi_flexible = 100"),
        ):
            controller = controller.replace(few, many)
        file.write_text('[[subsystems]]\nname = "s"\n' + controller * 3)
        self.expect(file, at_controller("sriov_max_vfs"), "303 controllers and virtual functions")

    @pytest.mark.parametrize("text", [NAMESPACE, IN_SUBSYSTEM, SRIOV, HANDLES])
    def test_templates_of_these_tests_are_valid(self, file: Path, text: str) -> None:
        file.write_text(text)
        topologies.load(str(file))

    def expect(self, file: Path, field: str, words: str) -> None:
        with pytest.raises(UsageError) as caught:
            topologies.load(str(file))
        assert caught.value.what.startswith(f"{file}: ")
        assert field in caught.value.what
        assert words in caught.value.what
        assert "\n" not in caught.value.what


class TestNamespaces:
    def test_nsids_are_unique_in_a_subsystem(self) -> None:
        assert [
            (entry.controller, entry.nsid, entry.namespace.size_mib)
            for entry in PAIR.all_namespaces()
        ] == [
            (0, 1, 4),
            (0, 2, 5),
            (0, 3, 1),
            (0, 4, 2),
            (1, 1, 512),
            (2, 5, 3),
        ]

    def test_controller_has_shared_and_own_namespaces(self) -> None:
        sizes = [
            {nsid: namespace.size_mib for nsid, namespace in PAIR.attached(number).items()}
            for number in range(3)
        ]
        assert sizes == [{1: 4, 2: 5, 3: 1, 4: 2}, {1: 512}, {1: 4, 2: 5, 5: 3}]

    def test_node_names_are_unique_and_fields_are_known(self) -> None:
        entries = PAIR.all_namespaces()
        assert len({entry.node for entry in entries}) == len(entries)
        assert [entry.field for entry in entries if entry.shared] == [
            "subsystems[0].namespaces[0]",
            "subsystems[0].namespaces[1]",
        ]
        assert entries[-1].field == "controllers[2].namespaces[0]"

    def test_metadata_reduces_the_number_of_blocks(self) -> None:
        assert Namespace(64).blocks == 64 * 2048
        assert Namespace(64, ms=8).blocks == (64 << 20) // 520
