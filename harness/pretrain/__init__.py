"""From pictures and reports to a checkpoint, and from the weights of others to one."""
