"""The demo: a Raman calibration on three measured spectra that come with the package, in `data`."""
