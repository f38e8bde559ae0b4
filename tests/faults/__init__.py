"""The delivery guarantee under faults: publishers and readers log what they see, a fault strikes, a checker judges."""
