"""From records to tables: statistics, intervals, published figures. Needs neither torch nor mmdet."""
