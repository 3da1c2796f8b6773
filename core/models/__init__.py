"""§3: networks, losses and training of G, D, Q and the classifiers. Read: networks, losses, gan."""
