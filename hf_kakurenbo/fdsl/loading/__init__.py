"""How a script gets the images: by index, streamed, or by name through `datasets`."""
