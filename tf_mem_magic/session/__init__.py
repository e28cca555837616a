"""The extension in one shell: runs and their states, reruns, restarts, the hooks."""
