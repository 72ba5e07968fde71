"""One pass of each job, readable top to bottom: gather, plan, guard, apply, report."""
