"""Running scripts for the grader: oomdoctor's virtual card, with an observer of our own around it, and a cache."""
