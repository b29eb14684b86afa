"""One file a job: `run(config, workdir)`."""
