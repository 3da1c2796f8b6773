"""§4.1: what is wrong with a corpus before it is prepared. Read: inventory, faults, doctor."""
