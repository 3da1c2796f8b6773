"""How voices sound: `recordings`, `judges`, `emotions` heard, `acoustics` and `comparison`."""
