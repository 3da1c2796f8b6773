"""Many runs: `planning` says how long they take, `sweep` trains them."""
