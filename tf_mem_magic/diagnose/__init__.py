"""What ran out, where and why: errors and allocator dumps parsed, the cause found, estimates. Pure."""
