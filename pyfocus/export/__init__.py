"""Models for other people's software: ONNX files out of a checkpoint, engines, and fusers that run them without torch.

    pyfocus-export onnx best.pt -o exported --verify
    pyfocus-export tensorrt exported -o engines
    pyfocus stack IMG_*.CR3 -o sharp.tif --fuser exported

``session`` needs ONNX Runtime alone; ``to_onnx`` and ``verify`` also torch, onnx and onnxscript; ``to_tensorrt`` and
``engines`` TensorRT or TensorRT-RTX alone.
"""
