"""Engines that continue token ids outside training: vLLM on this machine, or a server over HTTP."""
