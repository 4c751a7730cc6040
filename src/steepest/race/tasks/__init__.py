"""The embedded tasks: real data that a dependency ships, so that nothing is downloaded."""
