"""Many questions: batch jobs, a server, and what serving engines need to prune."""
