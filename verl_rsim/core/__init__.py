"""The method itself: strategies, prompts, dialogue, schedule, episode records. Imports neither torch nor verl."""
