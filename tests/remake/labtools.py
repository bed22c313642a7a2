"""A package in two versions with different output."""

import math
import zipfile

VERSION = 1


def write(kind, values, folder):
    """Write values as files of a kind."""
    import h5py
    import numpy as np

    new = VERSION == 2
    array = np.array([*values, math.nan])
    if kind == "byte":
        (folder / "it.bin").write_bytes(bytes([255, 254, 7 if new else 6, 253]))
    elif kind == "sign":
        array[-1] = math.copysign(math.nan, -1 if new else 1)
        np.save(folder / "it.npy", array)
    elif kind == "type":
        np.savez(folder / "it.npz", y=array.astype("f4" if new else "f8"))
    elif kind == "column":
        rows = ["x,y,z", *(f"{n},{y},{y * 2}" for n, y in enumerate(values))]
        (folder / "it.csv").write_text("\n".join(row.rpartition(",")[0] if new else row for row in rows))
    elif kind == "hdf5":
        with h5py.File(folder / "it.h5", "w") as file:
            file.create_dataset("y", data=np.resize(array, 4000), compression="gzip", compression_opts=9 if new else 1)
    elif kind == "npz":
        (np.savez if new else np.savez_compressed)(folder / "it.npz", y=np.resize(array, 4000))
    elif kind == "zip":
        with zipfile.ZipFile(folder / "it.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9 if new else 1) as archive:
            archive.writestr(zipfile.ZipInfo("it.txt"), repr(values * 400), zipfile.ZIP_DEFLATED, 9 if new else 1)
