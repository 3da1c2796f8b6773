"""§4.3-4.7: a run from sets to results, and many runs on one machine or a Ray cluster. Read: pipeline, sweep, jobs."""
