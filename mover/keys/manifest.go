package keys

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/credentials"
)

// manifest returns the Secret with the key, ready to apply. It is not made of the
// Secret that is there: nothing of that but the keys is of use elsewhere.
func manifest(f found) ([]byte, error) {
	fingerprint, err := f.key.Fingerprint()
	if err != nil {
		return nil, fmt.Errorf("fingerprint of the master key: %w", err)
	}

	head := fmt.Sprintf("# The master key of Estiba's backups; its fingerprint is %s.\n", fingerprint)
	data := map[string][]byte{contract.MasterKeySecretKey: f.key.Encode()}

	if !f.previous.IsZero() {
		before, err := f.previous.Fingerprint()
		if err != nil {
			return nil, fmt.Errorf("fingerprint of the previous master key: %w", err)
		}

		head += fmt.Sprintf("# The previous one, of fingerprint %s, goes along: some repositories may still be under it.\n", before)
		data[contract.MasterKeySecretPrevious] = f.previous.Encode()
	}

	m, err := yaml.Marshal(map[string]any{
		"apiVersion": corev1.SchemeGroupVersion.String(),
		"kind":       "Secret",
		"metadata": map[string]any{
			"name":      contract.MasterKeySecret,
			"namespace": f.namespace,
			"labels":    map[string]string{contract.LabelExcludeFromBackup: "true"},
		},
		"type": corev1.SecretTypeOpaque,
		"data": data,
	})
	if err != nil {
		return nil, errors.New("encode the Secret") // the reason might quote it
	}

	return append([]byte(head), m...), nil
}

// parse reads a key from a file: a manifest of the Secret in YAML or JSON, or
// the key alone, in base64 as the Secret's data hold it when they are decoded.
func parse(content []byte) (found, error) {
	var s corev1.Secret

	// The errors of the parser may quote what they can't read.
	if err := yaml.Unmarshal(content, &s); err != nil || s.Kind != "Secret" {
		key, err := credentials.ParseMasterKey(content)
		if err != nil {
			return found{}, fmt.Errorf("it is no manifest of a Secret, and taken for the key alone, %w", err)
		}

		return found{key: key}, nil
	}

	return fromSecret(&s)
}

func fromSecret(s *corev1.Secret) (found, error) {
	f := found{namespace: s.Namespace}

	for name, into := range map[string]*credentials.MasterKey{contract.MasterKeySecretKey: &f.key, contract.MasterKeySecretPrevious: &f.previous} {
		encoded := s.Data[name]
		if text, ok := s.StringData[name]; ok {
			encoded = []byte(text) // as the API server has it
		}

		if len(encoded) == 0 {
			if name == contract.MasterKeySecretKey {
				return found{}, fmt.Errorf("Secret %s has no key %q", s.Name, name) //nolint:staticcheck // a kind's name
			}

			continue
		}

		key, err := credentials.ParseMasterKey(encoded)
		if err != nil {
			return found{}, fmt.Errorf("key %s of Secret %s: %w", name, s.Name, err)
		}

		*into = key
	}

	return f, nil
}
