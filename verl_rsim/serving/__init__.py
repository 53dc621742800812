"""``verl-rsim serve``: serves a planner and a reasoner behind one OpenAI-compatible endpoint, with a web page."""
