"""From grades to figures, and from figures to pages."""
