"""Relations of a video as training items: rows, segments with labels, batches; readers of VidVRD, VidOR and JAAD."""
