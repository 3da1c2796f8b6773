"""How voices sound: `recordings` to compare with, `judges` of speech, `acoustics`, `comparison`."""
