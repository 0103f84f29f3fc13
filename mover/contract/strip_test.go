package contract_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestStrip(t *testing.T) {
	type object = map[string]any

	named := func(names ...string) []any {
		var list []any
		for _, n := range names {
			list = append(list, object{"name": n})
		}

		return list
	}

	tests := map[string]struct {
		in, want object
		stripped bool
	}{
		"an object without anything of ours stays": {
			in:   object{"metadata": object{"annotations": object{"a": "b"}}, "spec": object{"volumes": named("data")}},
			want: object{"metadata": object{"annotations": object{"a": "b"}}, "spec": object{"volumes": named("data")}},
		},
		"records and the gate go, the rest stays in its order": {
			in: object{
				"metadata": object{"annotations": object{"a": "b", contract.AnnotationVolumes: "x", contract.AnnotationVolume: "y", contract.AnnotationVolumeUnprotected: "u", contract.AnnotationRestore: "z", contract.AnnotationHeld: "w"}},
				"spec":     object{"volumes": named("data", contract.GateVolume, "logs"), "initContainers": named(contract.GateContainer, "setup"), "schedulingGates": named("theirs", contract.SchedulingGate)},
			},
			want: object{
				"metadata": object{"annotations": object{"a": "b"}},
				"spec":     object{"volumes": named("data", "logs"), "initContainers": named("setup"), "schedulingGates": named("theirs")},
			},
			stripped: true,
		},
		"lists and maps that become empty go, too": {
			in: object{
				"metadata": object{"annotations": object{contract.AnnotationVolume: "y"}},
				"spec":     object{"volumes": named(contract.GateVolume), "initContainers": named(contract.GateContainer)},
			},
			want:     object{"metadata": object{}, "spec": object{}},
			stripped: true,
		},
		"the label of a claim that isn't filled goes, others stay": {
			in:       object{"metadata": object{"labels": object{"app": "shop", contract.LabelUnfilled: "vr-1"}, "annotations": object{"a": "b"}}},
			want:     object{"metadata": object{"labels": object{"app": "shop"}, "annotations": object{"a": "b"}}},
			stripped: true,
		},
		"what the user asked for is the user's": {
			in:   object{"metadata": object{"annotations": object{contract.AnnotationBackupVolumes: "data"}}},
			want: object{"metadata": object{"annotations": object{contract.AnnotationBackupVolumes: "data"}}},
		},
		"an object of another shape is let be": {
			in:   object{"metadata": "odd", "spec": []any{"odd"}},
			want: object{"metadata": "odd", "spec": []any{"odd"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.stripped, contract.Strip(tt.in))
			assert.Equal(t, tt.want, tt.in)
			assert.False(t, contract.Strip(tt.in), "a second time there is nothing left")
		})
	}
}

func TestAnnotate(t *testing.T) {
	type object = map[string]any

	for name, tt := range map[string]struct{ in, want object }{
		"an object without metadata":    {object{}, object{"metadata": object{"annotations": object{"k": "v"}}}},
		"one without annotations":       {object{"metadata": object{"name": "n"}}, object{"metadata": object{"name": "n", "annotations": object{"k": "v"}}}},
		"one with others":               {object{"metadata": object{"annotations": object{"a": "b"}}}, object{"metadata": object{"annotations": object{"a": "b", "k": "v"}}}},
		"one that has it, with another": {object{"metadata": object{"annotations": object{"k": "w"}}}, object{"metadata": object{"annotations": object{"k": "v"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			contract.Annotate(tt.in, "k", "v")
			assert.Equal(t, tt.want, tt.in)
		})
	}
}
