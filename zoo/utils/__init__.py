"""What the whole project uses and that is about no paper: files, errors, paths, threads."""
