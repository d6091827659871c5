"""The exhaustive search for the best answer, with the grader's own simulator and nothing of the planner."""
