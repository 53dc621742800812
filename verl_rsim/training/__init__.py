"""The verl job: trainer, policies, agent loop, engines, advantages."""
