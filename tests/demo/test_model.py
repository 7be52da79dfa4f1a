import onnx
import onnxruntime

from ifgo import demo


def logits(x):
    session = onnxruntime.InferenceSession(demo.model_path(), providers=["CPUExecutionProvider"])
    return session.run(["logit"], {"x": x})[0]


def test_input_and_output():
    session = onnxruntime.InferenceSession(demo.model_path(), providers=["CPUExecutionProvider"])
    (x,), (logit,) = session.get_inputs(), session.get_outputs()
    assert (x.name, x.shape, x.type) == ("x", ["batch", "time", 1], "tensor(float)")
    assert (logit.name, logit.shape, logit.type) == ("logit", ["batch", 1], "tensor(float)")


def test_layers_are_1_16_16_16_and_a_dense():
    model = onnx.load(demo.model_path())
    onnx.checker.check_model(model, full_check=True)
    weights = {w.name: tuple(w.dims) for w in model.graph.initializer}
    lstms = [node for node in model.graph.node if node.op_type == "LSTM"]
    assert [weights[node.input[1]] for node in lstms] == [(1, 64, 1), (1, 64, 16), (1, 64, 16)]
    assert [weights[node.input[2]] for node in lstms] == [(1, 64, 16)] * 3
    (dense,) = [node for node in model.graph.node if node.op_type == "Gemm"]
    assert weights[dense.input[1]] == (1, 16)


def test_batch_is_free():
    x = demo.beats().x
    assert logits(x[:1]).shape == (1, 1)
    assert logits(x[:7]).shape == (7, 1)


def test_scores_of_the_last_two_minutes_by_rule_labels():
    beats = demo.beats()
    found = demo.score(logits(beats.x)[beats.in_test, 0], beats.label[beats.in_test])
    assert found.accuracy >= 0.97
    assert found.recall >= 0.9
