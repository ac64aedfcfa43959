use super::*;
use crate::engine::nn::Activation;
use crate::train::Progress;
use crate::train::TrainConfig;
use crate::train::checkpoint::Checkpoint;
use crate::vae::{Likelihood, Spread, StochasticLayer, VaeConfig};

/// A model of 2 × 3 pixels at its initial values.
fn pair(config: VaeConfig) -> OnnxPair {
    let vae = Vae::new(VaeConfig { image: [2, 3], ..config.hidden(&[5, 4]) }).unwrap();
    let params = vae.params();
    let slots = params.iter().map(|param| (param.name.clone(), (param.initial)(1))).collect();
    let config = TrainConfig::new(vae.config.clone());
    let checkpoint = Checkpoint { config, progress: Progress::default(), images: None, slots };
    let metadata = BTreeMap::from([("seed".into(), "1".into())]);
    OnnxPair::new(&vae, &checkpoint.parameters().unwrap(), &metadata).unwrap()
}

fn outputs(model: &OnnxModel) -> Vec<String> {
    model.graph.as_ref().unwrap().output.iter().map(|output| output.name.clone()).collect()
}

/// Every name that is read was given, made or stored before, once; every output is made.
fn is_sound(model: &OnnxModel) {
    let graph = model.graph.as_ref().unwrap();
    let mut known: Vec<&str> = graph.input.iter().map(|i| i.name.as_str()).collect();
    known.extend(graph.initializer.iter().map(|t| t.name.as_str()));
    for node in &graph.node {
        node.input.iter().for_each(|name| assert!(known.contains(&name.as_str()), "{name} of {}", node.name));
        for output in &node.output {
            assert!(!known.contains(&output.as_str()), "{output} twice");
            known.push(output);
        }
    }
    graph.output.iter().for_each(|o| assert!(known.contains(&o.name.as_str()), "{} is not made", o.name));
    for tensor in &graph.initializer {
        assert_eq!(tensor.raw_data.len(), 4 * tensor.dims.iter().product::<i64>() as usize, "{}", tensor.name);
    }
}

#[test]
fn every_likelihood_and_activation_can_be_written() {
    let expected: [(&str, &[&str]); 6] = [
        ("bernoulli", &["mean", "logits"]),
        ("gaussian", &["mean", "sigma"]),
        ("gaussian_shared", &["mean", "sigma"]),
        ("gaussian_optimal", &["mean", "sigma"]),
        ("continuous_bernoulli", &["mean", "logits"]),
        ("discretised_logistic", &["mean", "sigma", "mu"]),
    ];
    for (name, names) in expected {
        let likelihood: Likelihood = name.parse().unwrap();
        let pair = pair(VaeConfig { likelihood, ..VaeConfig::new(2) });
        assert_eq!(outputs(&pair.decoder), names, "{name}");
        [&pair.encoder, &pair.decoder].into_iter().for_each(is_sound);
    }
    for &activation in Activation::ALL {
        for &spread in Spread::ALL {
            let pair = pair(VaeConfig { activation, spread, ..VaeConfig::new(2) });
            assert_eq!(outputs(&pair.encoder), ["mu", "logvar"], "{activation} {spread}");
            [&pair.encoder, &pair.decoder].into_iter().for_each(is_sound);
        }
    }
}

#[test]
fn tensors_have_the_names_and_the_layout_of_the_checkpoint() {
    let pair = pair(VaeConfig::new(2));
    let graph = pair.encoder.graph.as_ref().unwrap();
    let shape = |name: &str| graph.initializer.iter().find(|t| t.name == name).map(|t| t.dims.clone());
    assert_eq!(shape("encoder.0.weight"), Some(vec![5, 6]));
    assert_eq!(shape("encoder.logvar.bias"), Some(vec![2]));
    let gemms: Vec<&OnnxNode> = graph.node.iter().filter(|node| node.op_type == "Gemm").collect();
    assert_eq!(gemms.len(), 4, "two hidden layers and two heads");
    assert_eq!(gemms[2].output, ["mu"]);
    let sizes = &graph.input[0].kind.as_ref().unwrap().tensor.as_ref().unwrap().shape.as_ref().unwrap().dim;
    assert_eq!((sizes[0].name.as_deref(), sizes[1].value), (Some("N"), Some(6)));
}

#[test]
fn a_file_is_read_back_and_equal_models_give_equal_bytes() {
    let [a, b] = [pair(VaeConfig::new(3)), pair(VaeConfig::new(3))];
    let bytes = encode(&a.decoder);
    assert_eq!(bytes, encode(&b.decoder));
    assert_eq!(decode(&bytes).unwrap(), a.decoder);
    assert_eq!(a.decoder.metadata_props[0].value, "1");
    assert!(decode(&bytes[..bytes.len() - 3]).is_err());
}

#[test]
fn several_stochastic_layers_are_refused() {
    let upper = vec![StochasticLayer { encoder: vec![6], latent: 2, decoder: vec![5] }];
    let vae = Vae::new(VaeConfig { upper, ..VaeConfig::new(3) }).unwrap();
    let message = OnnxPair::new(&vae, &[], &BTreeMap::new()).err().unwrap().to_string();
    assert!(message.contains("2 stochastic layers") && message.contains("safetensors"), "{message}");
}
