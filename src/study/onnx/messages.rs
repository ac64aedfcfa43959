//! The messages of `onnx.proto` that are written, with the numbers of their fields there.

use prost::Message;

/// `onnx.ModelProto`: a graph, and what it needs to be understood.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxModel {
    /// The version of the format.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// The program that wrote it.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub producer_version: String,
    /// For people to read.
    #[prost(string, tag = "6")]
    pub doc_string: String,
    /// What is computed.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<OnnxGraph>,
    /// The version of the operators.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    /// Text by name.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<TextEntry>,
}

/// `onnx.OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub struct OperatorSet {
    /// The version of the standard operators.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// `onnx.StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub struct TextEntry {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `onnx.GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxGraph {
    /// The operations, each after those that it reads.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<OnnxNode>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<OnnxTensor>,
    /// What is given.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<OnnxValue>,
    /// What is returned.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<OnnxValue>,
}

/// `onnx.NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxNode {
    /// What it reads.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// What it writes.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Its own name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// The operator's options.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<OnnxAttribute>,
}

/// `onnx.AttributeProto` of an integer.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxAttribute {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(int64, tag = "3")]
    pub i: i64,
    /// 2, for an integer.
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

/// `onnx.TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxTensor {
    /// Its shape.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// Of its elements.
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Its name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// The elements, little-endian.
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
}

/// `onnx.ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it is.
    #[prost(message, optional, tag = "2")]
    pub kind: Option<OnnxKind>,
    /// For people to read.
    #[prost(string, tag = "3")]
    pub doc_string: String,
}

/// `onnx.TypeProto` of a tensor.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxKind {
    /// Its elements and shape.
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<OnnxTensorKind>,
}

/// `onnx.TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxTensorKind {
    /// Of its elements.
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    /// Its shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<OnnxShape>,
}

/// `onnx.TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxShape {
    /// The sizes.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<OnnxSize>,
}

/// `onnx.TensorShapeProto.Dimension`: a number, or the name of one that is only known when it runs.
#[derive(Clone, PartialEq, Message)]
pub struct OnnxSize {
    /// The number.
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    /// The name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
}
