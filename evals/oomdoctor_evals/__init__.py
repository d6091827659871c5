"""The evals: does the advice work? Scenarios, agents, a grader that runs the answer."""
