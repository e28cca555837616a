"""Where a changed step finds room: in the pieces of the pool that there is, or of one that begins anew."""
