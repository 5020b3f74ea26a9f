"""Local training of prompts, in torch alone: examples, task, loss, one client, many clients as one batch."""
