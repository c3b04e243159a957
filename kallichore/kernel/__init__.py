"""One kernel process: what to launch, how to start and end it, what it prints and uses."""
