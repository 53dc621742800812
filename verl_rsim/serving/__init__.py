"""``verl-rsim serve``: a planner and a reasoner behind one OpenAI-compatible endpoint, and a page to watch them."""
