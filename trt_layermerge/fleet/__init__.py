"""Work that several machines share through Ray. It knows Ray and nothing of what is measured."""
