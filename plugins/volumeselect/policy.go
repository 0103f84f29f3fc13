package volumeselect

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/settings"
)

// The actions of a volume policy, as Velero names them
// (velero v1.18.3 internal/resourcepolicies/resource_policies.go).
const (
	actionSkip     = "skip"
	actionFSBackup = "fs-backup"
	actionSnapshot = "snapshot"
	actionCustom   = "custom"
)

const policyVersion = "v1"

// Action is what a volume policy wants done with a volume.
type Action struct {
	// Type is skip, fs-backup, snapshot or custom.
	Type string `yaml:"type"`
	// Parameters of the action.
	Parameters map[string]any `yaml:"parameters,omitempty"`

	// idle says that Velero doesn't do what the action says.
	idle bool
}

// Estiba reports whether the action names Estiba as the mover.
func (a *Action) Estiba() bool {
	if a == nil || a.Type != actionCustom {
		return false
	}

	mover, ok := a.Parameters[contract.PolicyParameterMover].(string)

	return ok && strings.TrimSpace(mover) == contract.PolicyMoverEstiba
}

func (a *Action) String() string {
	if a.Type == actionCustom {
		return fmt.Sprintf("%s (parameters %v)", a.Type, a.Parameters)
	}

	return a.Type
}

// Policies are the volume policies of a backup, in the order in which they are tried.
type Policies struct {
	rules   []rule
	filters []filters
}

type rule struct {
	conditions conditions
	action     Action
}

// document is the ConfigMap's one value. What selects resources is Velero's
// alone; it has checked it before any action runs.
type document struct {
	Version                   string         `yaml:"version"`
	VolumePolicies            []volumePolicy `yaml:"volumePolicies"`
	IncludeExcludePolicy      yaml.Node      `yaml:"includeExcludePolicy,omitempty"`
	ClusterScopedFilterPolicy yaml.Node      `yaml:"clusterScopedFilterPolicy,omitempty"`
	NamespacedFilterPolicies  yaml.Node      `yaml:"namespacedFilterPolicies,omitempty"`
}

type volumePolicy struct {
	Conditions conditions `yaml:"conditions"`
	Action     Action     `yaml:"action"`
}

// ParsePolicies reads the data of the ConfigMap that a backup names as its
// resource policy. A condition that this release doesn't know is an error: to
// pass over it would move the wrong volumes.
func ParsePolicies(data map[string]string) (*Policies, error) {
	if len(data) != 1 {
		return nil, fmt.Errorf("read volume policies: the ConfigMap must hold exactly one key, and has %d", len(data))
	}

	var (
		doc    document
		beside filters
	)

	for _, text := range data {
		// Velero's own reader of YAML: others take a label's value yes for true.
		d := yaml.NewDecoder(strings.NewReader(text))
		d.KnownFields(true)

		if err := d.Decode(&doc); err != nil {
			return nil, fmt.Errorf("read volume policies: %w", err)
		}

		if err := yaml.Unmarshal([]byte(text), &beside); err != nil {
			return nil, fmt.Errorf("read the filters beside the volume policies: %w", err)
		}
	}

	if doc.Version != policyVersion {
		return nil, fmt.Errorf("read volume policies: version %q is not known, expected %q", doc.Version, policyVersion)
	}

	p := &Policies{filters: []filters{beside}}

	for i, vp := range doc.VolumePolicies {
		if err := vp.validate(); err != nil {
			return nil, fmt.Errorf("read volume policies: volumePolicies[%d]: %w", i, err)
		}

		p.rules = append(p.rules, rule{conditions: vp.Conditions, action: vp.Action})
	}

	return p, nil
}

// Followed returns the policies followed by the ones of another list, which
// count where no earlier one matches. Either may be nil.
func (p *Policies) Followed(by *Policies) *Policies {
	both := &Policies{}

	for _, list := range []*Policies{p, by} {
		if list != nil {
			both.rules = append(both.rules, list.rules...)
			both.filters = append(both.filters, list.filters...)
		}
	}

	return both
}

// Match returns the action of the first policy whose conditions the volume all
// fulfils, or nil where there is none.
func (p *Policies) Match(v Traits) *Action {
	if p == nil {
		return nil
	}

	for i := range p.rules {
		if p.rules[i].conditions.match(v) {
			return &p.rules[i].action
		}
	}

	return nil
}

func (vp volumePolicy) validate() error {
	switch vp.Action.Type {
	case actionSkip, actionFSBackup, actionSnapshot, actionCustom:
	default:
		return fmt.Errorf("action type %q is not known", vp.Action.Type)
	}

	low, high, err := vp.Conditions.capacityRange()
	if err != nil {
		return err
	}

	if !high.IsZero() && high.Cmp(low) < 0 {
		return fmt.Errorf("capacity %q: the upper bound is below the lower one", vp.Conditions.Capacity)
	}

	if c := vp.Conditions.CSI; c != nil && c.Driver == "" && c.VolumeAttributes != nil {
		return fmt.Errorf("csi: volumeAttributes need a driver")
	}

	return nil
}

// capacityRange reads "LOW,HIGH", where either may be left out and is 0 then.
func (c conditions) capacityRange() (low, high resource.Quantity, err error) {
	if c.Capacity == "" {
		return low, high, nil
	}

	parts := strings.Split(c.Capacity, ",")
	if len(parts) != 2 {
		return low, high, fmt.Errorf("capacity %q: expected LOW,HIGH", c.Capacity)
	}

	for i, bound := range []*resource.Quantity{&low, &high} {
		text := strings.TrimSpace(parts[i])
		if text == "" {
			continue
		}

		if *bound, err = settings.Quantity(text); err != nil {
			return low, high, fmt.Errorf("capacity %q: %w", c.Capacity, err)
		}
	}

	return low, high, nil
}
