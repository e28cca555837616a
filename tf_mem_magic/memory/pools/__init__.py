"""A step run through an allocator's pool: what it takes and gives back in its order, and the pieces that meet that."""
