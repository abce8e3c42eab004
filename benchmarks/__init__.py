"""Side by side with the peers: same work, same run. See README.md."""
