"""Who is let through to which instance, and when: a bounded fair queue in front of each set of replicas."""
