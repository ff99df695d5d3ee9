"""A plug-in for lmms-eval: the task NExT-GQA, and a model that shows any video language model chosen frames.

    pip install lmms-eval
    export NEXTGQA_SPANS=gsub_test.json                      # from github.com/doc-doc/NExT-GQA
    PYTHONPATH=scripts/lmms LMMS_EVAL_PLUGINS=causal_frames python -m lmms_eval --tasks nextgqa \
        --include_path scripts/lmms/causal_frames/tasks --model selected_frames \
        --model_args pretrained=Qwen/Qwen3-VL-4B-Instruct,checkpoint=outputs/transtr,frames=8,device=cuda

The task alone works with any model of lmms-eval. Loaded and run with lmms-eval 0.7.3.
"""
