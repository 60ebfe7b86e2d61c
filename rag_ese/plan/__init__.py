"""The planner: from a recall, a latency and a memory that are asked for to a funnel that is measured to meet them."""
