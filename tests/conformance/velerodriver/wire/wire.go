// Package wire is what the conformance tests and the driver of another Velero
// say to each other: one request and one response per line, as JSON. It must
// compile against every Velero that the driver is built for.
package wire

import (
	"encoding/json"

	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
)

// Methods of the actions. All three kinds of actions have some of them.
const (
	AppliesTo = "AppliesTo"
	Execute   = "Execute"
	Progress  = "Progress"
	Cancel    = "Cancel"
	Ready     = "AreAdditionalItemsReady"
)

// Kinds of actions.
const (
	Backup  = "BackupItemAction"
	Restore = "RestoreItemAction"
	Delete  = "DeleteItemAction"
)

// Request asks for one call of an action.
type Request struct {
	// Kind and Name of the action, and which of its methods is called.
	Kind, Name, Method string
	// Item and ItemFromBackup are the objects that are handed over.
	Item, ItemFromBackup json.RawMessage `json:",omitempty"`
	// Owner is the Backup or the Restore.
	Owner json.RawMessage `json:",omitempty"`
	// Operation is the ID that Progress and Cancel are about.
	Operation string `json:",omitempty"`
	// Additional are the items that Ready is about.
	Additional []velero.ResourceIdentifier `json:",omitempty"`
}

// Response is what the call gave.
type Response struct {
	// Error is empty if the call gave none.
	Error string `json:",omitempty"`
	// Item is the object as the action has changed it.
	Item json.RawMessage `json:",omitempty"`
	// Operation is the ID of what the action has started.
	Operation string `json:",omitempty"`
	// Additional items are handled next, Later ones when the operation has ended.
	Additional, Later []velero.ResourceIdentifier `json:",omitempty"`
	// Skip and Wait are what a restore's action says of the item.
	Skip, Wait bool `json:",omitempty"`
	// Ready says that the additional items are.
	Ready bool `json:",omitempty"`
	// Progress of an operation.
	Progress velero.OperationProgress
	// Selector is what the action applies to.
	Selector velero.ResourceSelector
}
