"""From families to scenario folders: draw the knobs, run the script, search for the best answer, write it all down."""
